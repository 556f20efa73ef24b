//! RE2's syntax in Latin-1 mode, translated for the `regex` crate.
pub(super) struct Translated {
    pub(super) pattern: String,
    pub(super) literal_prefix: Vec<u8>,
    pub(super) program_size: u32,
}
pub(super) fn translate(pattern: &[u8]) -> Result<Translated, String> {
    Ok(Translated {
        pattern: String::from_utf8_lossy(pattern).into_owned(),
        literal_prefix: Vec::new(),
        program_size: pattern.len() as u32 + 4,
    })
}
