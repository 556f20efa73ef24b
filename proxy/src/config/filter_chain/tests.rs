use proptest::prelude::*;

use super::matches::Cidr;

#[test]
fn a_range_holds_its_prefix_and_nothing_else() {
    let cidr = |text: &str, length| Cidr::new(text.parse().expect("address"), length);
    for (range, address, inside) in [
        (cidr("10.1.2.3", 8), "10.255.0.1", true),
        (cidr("10.1.2.3", 8), "11.0.0.1", false),
        (cidr("1.2.3.4", 64), "1.2.3.4", true),
        (cidr("1.2.3.4", 64), "1.2.3.5", false),
        (cidr("0.0.0.0", 0), "9.9.9.9", true),
        (cidr("0.0.0.0", 0), "::1", false),
        (cidr("2001:db8::", 32), "2001:db8:1::1", true),
        (cidr("::", 0), "::1", true),
    ] {
        assert_eq!(range.contains(address.parse().expect("address")), inside, "{range:?} {address}");
    }
}

proptest! {
    #[test]
    fn every_range_holds_its_own_addresses(bits: u128, length in 0_u32..200) {
        let address = std::net::IpAddr::V6(bits.into());
        let range = Cidr::new(address, length);
        prop_assert!(range.contains(address) && range.contains(range.address()));
    }
}
