//! Any text is a recipe or an error; a recipe has a digest.
#![no_main]

use kiln_model::recipe::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(recipe) = Recipe::parse(text) {
        recipe.pins();
    }
});
