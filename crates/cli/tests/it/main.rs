//! The built command from outside.

mod bench;
