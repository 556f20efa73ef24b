//! String, header, query-parameter and address matchers, compiled once.
