//! Values in filters.

/// Returns a value as an `OData` string: in quotes, and quotes in it twice. What users write belongs into a filter only so.
///
/// ```
/// use hookwire_client::odata;
///
/// let filter = format!("userId eq {}", odata("d'Artagnan"));
/// assert_eq!(filter, "userId eq 'd''Artagnan'");
/// ```
pub fn odata(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
