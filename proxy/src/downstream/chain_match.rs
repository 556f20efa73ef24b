//! Filter-chain match in Envoy's order.
