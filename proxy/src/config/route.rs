//! `RouteConfiguration` to a route table.
