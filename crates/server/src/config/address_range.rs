//! Ranges of IP addresses, as they are written in CIDR notation (RFC 4632, section 3.1; RFC 4291, section 2.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    /// How many bits count: at most those of the address.
    prefix_bits: u32,
}

/// A text is no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address or a range such as 169.254.0.0/16 or fe80::/10")]
pub struct AddressRangeError {
    /// What was given.
    pub text: String,
}

impl AddressRange {
    /// Returns where most clouds have their metadata services (link-local addresses, and one address of a cloud that uses another
    /// range), and the unspecified addresses, which lead to the machine itself.
    ///
    /// # Panics
    /// Never: the ranges are constants.
    pub fn metadata_services() -> Vec<Self> {
        let ranges = ["0.0.0.0", "169.254.0.0/16", "::", "fd00:ec2::254", "fe80::/10"];
        ranges.map(|range| range.parse().expect("a constant range")).to_vec()
    }

    /// Returns whether `address` is in the range; an IPv4 address within an IPv6 address counts as the former.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                let differing = range.to_bits() ^ address.to_bits();
                self.prefix_bits <= differing.leading_zeros()
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                let differing = range.to_bits() ^ address.to_bits();
                self.prefix_bits <= differing.leading_zeros()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || AddressRangeError { text: text.to_owned() };
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => bits_max,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| fault())?
            }
            Some(_) => return Err(fault()),
        };
        if bits_max < prefix_bits {
            return Err(fault());
        }
        Ok(Self { address, prefix_bits })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_addresses_that_share_its_first_bits() {
        for (range, inside, outside) in [
            ("169.254.0.0/16", "169.254.169.254", "169.255.0.0"),
            ("169.254.0.0/16", "::ffff:169.254.1.1", "::ffff:169.253.1.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.0"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("fe80::/10", "febf::1", "fec0::1"),
            ("fd00:ec2::254", "fd00:ec2::254", "fd00:ec2::255"),
        ] {
            let parsed: AddressRange = range.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{range} holds {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{range} does not hold {outside}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::1/-1"]
        {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}
