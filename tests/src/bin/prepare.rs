//! `prepare [--files-only] RECIPE…`: what `scripts/test` runs before the tests. See [`kiln_tests::prepare`].

use kiln_tests::prepare::{From, prepare};

fn main() -> anyhow::Result<()> {
    let mut recipes: Vec<String> = std::env::args().skip(1).collect();
    let from = if recipes.first().is_some_and(|word| word == "--files-only") {
        recipes.remove(0);
        From::Files
    } else {
        From::Mirrors
    };
    prepare(&recipes, from)
}
