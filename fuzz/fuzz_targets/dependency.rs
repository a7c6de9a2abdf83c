//! Any text is a dependency field or an error; versions are in one order.
#![no_main]

use kiln_model::debian::{dependency, version::Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    let _ = dependency::parse(texts.0);
    if let (Ok(a), Ok(b)) = (Version::parse(texts.0), Version::parse(texts.1)) {
        assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    }
});
