# Builds one wheel by the hooks of PEP 517. Run in the sandbox: no network, sources and requirements as store paths.
# Arguments: the sdist, its directory, the object with the hooks, directories of the source to find it in (comma-separated),
# then wheels to install; -- and requirements that the hook is known to name.
import importlib, importlib.metadata, os, re, site, subprocess, sys, time, zipfile

del sys.path[0]  # where this script lies: nothing there is to be imported

UNMET = 75  # EX_TEMPFAIL: kiln pins what is named, and builds again.

sdist, directory, backend, within, *rest = sys.argv[1:]
cut = rest.index("--")
wheels, known = rest[:cut], set(rest[cut + 1:])
top = os.getcwd()
target = site.getusersitepackages()
programs = os.path.join(site.getuserbase(), "bin")
os.makedirs(target)
os.makedirs(programs)

def program(name, text):
    path = os.path.join(programs, name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o755)

for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        data = "-".join(os.path.basename(wheel).split("-")[:2]) + ".data/"
        for member in archive.infolist():
            kind, _, inner = member.filename.removeprefix(data).partition("/")
            if not member.filename.startswith(data):
                archive.extract(member, target)
            elif kind in ("purelib", "platlib") and inner:
                member.filename = inner
                archive.extract(member, target)
            elif kind == "scripts" and inner:
                member.filename = inner
                os.chmod(archive.extract(member, programs), 0o755)
site.addsitedir(target)
for distribution in importlib.metadata.distributions(path=[target]):
    for entry in distribution.entry_points:
        if entry.group == "console_scripts":
            call = f"from {entry.module} import {entry.attr.split('.')[0]}\nsys.exit({entry.attr}())\n"
            program(entry.name, f"#!/usr/bin/python3\nimport sys\n{call}")

if sdist.endswith(".zip"):
    with zipfile.ZipFile(sdist) as archive:
        for member in archive.infolist():
            path = archive.extract(member, top)
            stamp = time.mktime(member.date_time + (0, 0, -1))
            os.utime(path, (stamp, stamp))
else:
    # Its own tar, for times and modes as everybody has them.
    subprocess.run(["tar", "-xf", sdist], check=True)
source = os.path.join(top, directory)
os.chdir(source)
for path in reversed([path for path in within.split(",") if path]):
    sys.path.insert(0, os.path.normpath(os.path.join(source, path)))

module, _, attribute = backend.partition(":")
hooks = importlib.import_module(module)
for name in filter(None, attribute.split(".")):
    hooks = getattr(hooks, name)

def unmet(requirement):
    if requirement in known:
        return False
    marker = requirement.partition(";")[2]
    if re.search(r"\bextra\b", marker) and not re.search(r"\bor\b", marker):
        return False  # of an extra, and none is asked for
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    try:
        importlib.metadata.version(name.group())
    except importlib.metadata.PackageNotFoundError:
        return True
    # Installed, but whether at a version that will do is for kiln to say.
    return bool(re.search(r"[<>=~!;@]", requirement))

ask = getattr(hooks, "get_requires_for_build_wheel", None)
missing = sorted({requirement for requirement in (ask({}) if ask else []) if unmet(requirement)})
if missing:
    print(f"the build backend asks for {len(missing)} more requirements")
    for requirement in missing:
        print("kiln-requires: " + requirement)
    sys.exit(UNMET)

made = os.path.join(top, "made")
os.makedirs(made)
name = hooks.build_wheel(made)
os.makedirs(os.environ["out"])
with open(os.path.join(made, name), "rb") as file, open(os.path.join(os.environ["out"], name), "wb") as copy:
    copy.write(file.read())
