//! What is varied between two builds of one derivation.
