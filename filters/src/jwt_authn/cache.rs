//! Tokens whose signatures were verified, so that none is verified twice: the ones used last, up to a number.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;

use super::failure::Failure;
use super::provider::CacheSize;
use super::token::Token;

/// Seconds by which clocks may differ, for tokens that are remembered.
const SKEW: u64 = 60;

/// What one worker remembers of one provider's tokens.
pub(super) struct TokenCache {
    size: CacheSize,
    places: HashMap<Bytes, usize>,
    /// Entries, linked from the one used last to the one used first.
    entries: Vec<Entry>,
    newest: usize,
    oldest: usize,
    free: Vec<usize>,
}

struct Entry {
    text: Bytes,
    token: Rc<Token>,
    newer: usize,
    older: usize,
}

/// No entry.
const NONE: usize = usize::MAX;

impl TokenCache {
    pub(super) fn new(size: CacheSize) -> Self {
        Self { size, places: HashMap::new(), entries: Vec::new(), newest: NONE, oldest: NONE, free: Vec::new() }
    }

    /// The token of this text, unless it has expired meanwhile.
    pub(super) fn find(&mut self, text: &Bytes, now: SystemTime) -> Option<Rc<Token>> {
        let place = *self.places.get(text)?;
        let token = Rc::clone(&self.entries.get(place)?.token);
        self.unlink(place);
        if token.check_time(now, SKEW) == Err(Failure::Expired) {
            self.places.remove(text);
            self.free.push(place);
            return None;
        }
        self.link(place);
        Some(token)
    }

    /// Remembers a token, and forgets the one that was not used for longest if there are too many.
    pub(super) fn insert(&mut self, text: &Bytes, token: Rc<Token>) {
        if text.len() > self.size.token_length || self.places.contains_key(text) {
            return;
        }
        if self.places.len() >= self.size.tokens
            && let Some(entry) = self.entries.get(self.oldest)
        {
            let place = self.places.remove(&entry.text);
            self.unlink(self.oldest);
            self.free.extend(place);
        }
        // The text may be a slice of a buffer, which is not to live as long as this.
        let text = Bytes::copy_from_slice(text);
        let entry = Entry { text: text.clone(), token, newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(text, place);
        self.link(place);
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Makes the entry the newest.
    fn link(&mut self, place: usize) {
        let older = std::mem::replace(&mut self.newest, place);
        self.entries[place].newer = NONE;
        self.entries[place].older = older;
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::token::tests::{TEXT_EXPIRES_100, unsigned};
    use super::*;

    fn cache(tokens: usize) -> TokenCache {
        TokenCache::new(CacheSize { tokens, token_length: 10 })
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn expired_and_long_tokens_are_not_remembered() {
        let mut cache = cache(5);
        let token = Rc::new(unsigned(TEXT_EXPIRES_100));
        cache.insert(&"short".into(), Rc::clone(&token));
        cache.insert(&"long......".into(), Rc::clone(&token));
        cache.insert(&"longer.....".into(), token);
        assert!(cache.find(&"short".into(), at(160)).is_some());
        assert!(cache.find(&"long......".into(), at(160)).is_some());
        assert!(cache.find(&"longer.....".into(), at(160)).is_none());
        assert!(cache.find(&"short".into(), at(161)).is_none());
        assert!(cache.find(&"short".into(), at(100)).is_none(), "it is gone");
    }

    proptest! {
        /// Against a list that does the same slowly.
        #[test]
        fn forgets_what_was_not_used_for_longest(steps in prop::collection::vec((any::<bool>(), 0..8_u8), 0..200)) {
            let token = Rc::new(unsigned(TEXT_EXPIRES_100));
            let mut cache = cache(4);
            let mut model: Vec<u8> = Vec::new();
            for (insert, key) in steps {
                let text = Bytes::from(vec![key]);
                if insert {
                    if !model.contains(&key) {
                        if model.len() == 4 {
                            model.remove(0);
                        }
                        model.push(key);
                    }
                    cache.insert(&text, Rc::clone(&token));
                } else {
                    let known = model.iter().position(|one| *one == key);
                    prop_assert_eq!(cache.find(&text, at(0)).is_some(), known.is_some());
                    if let Some(place) = known {
                        model.remove(place);
                        model.push(key);
                    }
                }
                prop_assert_eq!(cache.places.len(), model.len());
                prop_assert!(cache.entries.len() <= 4);
            }
        }
    }
}
