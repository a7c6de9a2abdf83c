//! What a wheel and an sdist say of themselves is parsed or refused, and never panics.
#![no_main]

use kiln_model::format::dist_info::{Metadata, Wheel};
use kiln_model::format::pyproject::BuildSystem;
use kiln_model::format::record;
use kiln_model::wheel::{Backend, WheelName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (Wheel::parse(bytes), Metadata::parse(bytes), record::parse(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (BuildSystem::parse(text), Backend::of_generator(text));
    if let Ok(name) = text.parse::<WheelName>() {
        assert_eq!(name.to_string().parse::<WheelName>().as_ref(), Ok(&name));
    }
});
