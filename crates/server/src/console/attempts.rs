//! How often somebody may try to log in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How long failures count.
const WINDOW: Duration = Duration::from_mins(1);

/// Failures within [`WINDOW`] after which an address is not listened to.
const FAILURES_PER_ADDRESS_MAX: u32 = 5;

/// Failures within [`WINDOW`] after which nobody is listened to; so many addresses are remembered at most.
const FAILURES_MAX: usize = 60;

/// The latest failures.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<Address, Failures>>);

/// Where attempts come from: an IPv4 address, or the network of an IPv6 address, since a host has a whole one.
type Address = [u8; 8];

#[derive(Debug)]
struct Failures {
    first: Instant,
    count: u32,
}

impl Attempts {
    /// Lets somebody try: returns what `find` finds, which counts as a failure if it is nothing.
    ///
    /// # Errors
    /// How long to wait, when there were too many failures; nothing is tried then.
    pub(super) fn attempt<T>(
        &self,
        from: IpAddr,
        now: Instant,
        find: impl FnOnce() -> Option<T>,
    ) -> Result<Option<T>, Duration> {
        let address = address(from);
        let mut failures = self.0.lock().expect("nothing panics while it holds the failures");
        failures.retain(|_, failures| now < failures.first + WINDOW);
        let own = failures.get(&address);
        let own_first =
            own.filter(|own| FAILURES_PER_ADDRESS_MAX <= own.count).map(|own| own.first);
        let all: u32 = failures.values().map(|failures| failures.count).sum();
        let all_first = failures.values().map(|failures| failures.first).min();
        let too_many = usize::try_from(all).is_ok_and(|all| FAILURES_MAX <= all);
        if let Some(first) = own_first.or(all_first.filter(|_| too_many)) {
            return Err((first + WINDOW).saturating_duration_since(now));
        }
        let found = find();
        if found.is_none() {
            failures.entry(address).or_insert(Failures { first: now, count: 0 }).count += 1;
        }
        Ok(found)
    }
}

fn address(from: IpAddr) -> Address {
    let mut address = [0; 8];
    match from.to_canonical() {
        IpAddr::V4(v4) => {
            // No IPv6 network in use begins with zeros.
            address[4..].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => address.copy_from_slice(&v6.octets()[..8]),
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(attempts: &Attempts, from: &str, now: Instant) -> Result<Option<()>, Duration> {
        attempts.attempt(from.parse().unwrap(), now, || None)
    }

    #[test]
    fn an_address_that_fails_five_times_waits_even_with_the_right_key() {
        let attempts = Attempts::default();
        let begin = Instant::now();
        for _ in 0..5 {
            assert_eq!(fail(&attempts, "192.0.2.1", begin), Ok(None));
        }
        let later = begin + Duration::from_secs(20);
        let right = || attempts.attempt("192.0.2.1".parse().unwrap(), later, || Some(()));
        assert_eq!(right(), Err(Duration::from_secs(40)));
        assert_eq!(fail(&attempts, "::ffff:192.0.2.1", later), Err(Duration::from_secs(40)));
        assert_eq!(fail(&attempts, "192.0.2.2", later), Ok(None), "others are not concerned");
        let over = begin + WINDOW;
        assert_eq!(attempts.attempt("192.0.2.1".parse().unwrap(), over, || Some(())), Ok(Some(())));
    }

    #[test]
    fn a_host_cannot_use_its_whole_network() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for at in 0..5 {
            assert_eq!(fail(&attempts, &format!("2001:db8::{at}"), now), Ok(None));
        }
        assert!(fail(&attempts, "2001:db8::ffff:1", now).is_err());
        assert!(fail(&attempts, "2001:db8:0:1::1", now).is_ok());
    }

    #[test]
    fn many_addresses_together_are_bounded_and_so_is_the_table() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for at in 0..FAILURES_MAX {
            assert_eq!(fail(&attempts, &format!("192.0.2.{at}"), now), Ok(None));
        }
        assert!(fail(&attempts, "198.51.100.1", now).is_err());
        assert_eq!(attempts.0.lock().unwrap().len(), FAILURES_MAX);
        assert!(fail(&attempts, "198.51.100.1", now + WINDOW).is_ok());
        assert_eq!(attempts.0.lock().unwrap().len(), 1);
    }
}
