//! Reading a stream of exported paths never panics; an archive that is one ends where it ends, and its trailer prints back.
#![no_main]

use std::io::Read as _;

use kiln_model::format::export::{Extent, Trailer, another};
use kiln_model::format::nar::{Limits, decode};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { entries: 10_000, bytes: 1 << 20 };

fuzz_target!(|bytes: &[u8]| {
    let mut stream = bytes;
    while let Ok(true) = another(&mut stream) {
        let whole = stream;
        let decoded = decode(&mut Extent::of(&mut stream), &LIMITS, |_| Ok(()));
        if decoded.is_err() {
            return;
        }
        let nar = &whole[..whole.len() - stream.len()];
        assert!(decode(&mut &nar[..], &LIMITS, |_| Ok(())).is_ok());
        let mut read = Vec::new();
        Extent::of(&mut &whole[..]).read_to_end(&mut read).expect("an archive");
        assert_eq!(read, nar);
        let Ok(trailer) = Trailer::read(&mut stream) else { return };
        assert_eq!(Trailer::read(&mut &trailer.print()[..]).expect("it was printed"), trailer);
    }
});
