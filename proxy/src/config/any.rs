//! Typed extension configuration: unwrapping `Any` and `TypedStruct`.
