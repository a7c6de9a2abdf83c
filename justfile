# Conveniences. The scripts are the truth; CI runs .ci/run, which runs them.

# What CI runs after setting up.
check:
    scripts/check
    scripts/test

# Build kiln.
setup *arguments:
    scripts/setup {{arguments}}

test *arguments:
    scripts/test {{arguments}}

bench *arguments:
    scripts/bench {{arguments}}
