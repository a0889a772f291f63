# cargo-update-recipe-crates: only that it is there to be inherited.
