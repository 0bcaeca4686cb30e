//! Times as CloudEvents write them.

const SECONDS_PER_DAY: u64 = 86_400;

/// The last second of the year 9999: later ones have no form of four digits.
const LAST_SECOND: u64 = 253_402_300_799;

/// Returns `yyyy-MM-ddTHH:mm:ssZ` for seconds since 1970, at most the last second of the year 9999 (Web PubSub protocol, "Requests in
/// general").
pub fn ce_time(unix_seconds: u64) -> String {
    let unix_seconds = unix_seconds.min(LAST_SECOND);
    let (year, month, day) = civil_date(unix_seconds / SECONDS_PER_DAY);
    let second = unix_seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns year, month and day of the Gregorian calendar for days since 1970. Years are counted from March, so that the leap day is
/// the last one; 400 of them have 146,097 days.
const fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    // From 1 March of the year 0.
    let days = days_since_1970 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written() {
        for (seconds, time) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(ce_time(seconds), time);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil_date(days), (year, month, day));
            let length = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if length < day {
                (month, day) = (month + 1, 1);
            }
            if 12 < month {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
