//! The protobuf encoding.
