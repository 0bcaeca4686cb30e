//! The chat room over HTTP, with a recording service in place of Hookwire.

mod frames;
mod groups;
mod history;
mod http_surface;
mod people;
mod service;
