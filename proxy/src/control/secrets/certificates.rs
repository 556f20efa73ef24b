//! What the certificates of contexts in use tell: how long they are good for, in statistics, and all of them for `/certs`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use filters::tls::Certificate;
use stats::{SharedGauge, Store};

use crate::tls::SecretUser;
use crate::tls::context::Ingredients;
use crate::tls::secret::{Roots, ValidationContext};

const DAY: u64 = 24 * 3600;

/// Contexts in use.
#[derive(Default)]
pub(super) struct InUse(RefCell<BTreeMap<u64, Kept>>);

struct Kept {
    context: Arc<dyn SecretUser>,
    /// `listener.<address>.ssl.certificate.`
    prefix: String,
    gauges: Vec<SharedGauge>,
}

/// The certificates of one context, for `/certs`.
#[derive(Debug, Clone, Default)]
pub struct ContextView {
    /// Those peers are checked against, and where they came from.
    pub authorities: Vec<(String, Arc<Certificate>)>,
    /// Its own, without their chains.
    pub own: Vec<(String, Arc<Certificate>)>,
}

impl InUse {
    /// A context is used, under this number.
    pub(super) fn add(&self, store: &Arc<Store>, number: u64, context: &Arc<dyn SecretUser>, prefix: String) {
        let kept = Kept { context: Arc::clone(context), prefix, gauges: Vec::new() };
        let mut all = self.0.borrow_mut();
        all.insert(number, kept);
        if let Some(kept) = all.get_mut(&number) {
            kept.measure(store);
        }
    }

    /// A context was made anew.
    pub(super) fn renewed(&self, store: &Arc<Store>, context: &Arc<dyn SecretUser>) {
        let mut contexts = self.0.borrow_mut();
        contexts.values_mut().filter(|kept| Arc::ptr_eq(&kept.context, context)).for_each(|kept| kept.measure(store));
    }

    /// A use of a context ended.
    pub(super) fn remove(&self, number: u64) {
        self.0.borrow_mut().remove(&number);
    }

    /// Days until the first of all certificates expires; `None` where there is none.
    pub(super) fn days_until_first_expires(&self, now: SystemTime) -> Option<u64> {
        let views = self.views();
        let all = views.iter().flat_map(|view| view.authorities.iter().chain(&view.own));
        all.map(|(_, certificate)| days_until(certificate, now)).min()
    }

    /// The certificates of every context.
    pub(super) fn views(&self) -> Vec<ContextView> {
        let contexts = self.0.borrow();
        let mut seen: Vec<&Arc<dyn SecretUser>> = Vec::new();
        let mut views = Vec::new();
        for Kept { context, .. } in contexts.values() {
            // It may be used by two versions of a listener.
            if seen.iter().any(|known| Arc::ptr_eq(known, context)) {
                continue;
            }
            seen.push(context);
            views.extend(context.made_of().map(|of| view(&of)));
        }
        views
    }
}

/// Whole days until a certificate expires; 0 afterwards.
#[must_use]
pub fn days_until(certificate: &Certificate, now: SystemTime) -> u64 {
    let left = certificate.facts().not_after.and_then(|end| end.duration_since(now).ok());
    left.unwrap_or_default().as_secs() / DAY
}

impl Kept {
    fn measure(&mut self, store: &Arc<Store>) {
        let Some(of) = self.context.made_of() else { return };
        let measure = |(name, value): (String, u64)| {
            let gauge = store.gauge(&format!("{}{name}.expiration_unix_time_seconds", self.prefix));
            gauge.set(value);
            gauge
        };
        self.gauges = expirations(&of).into_iter().map(measure).collect();
    }
}

/// When what expires, by its name in statistics. Of a bundle the first counts, as in Envoy.
fn expirations(of: &Ingredients) -> Vec<(String, u64)> {
    let own = of.certificates.iter().filter_map(|it| Some((it.name.clone(), expiration(it.chain.first()?))));
    let mut all: Vec<_> = own.collect();
    let Some(validation) = of.validation.as_deref() else { return all };
    let ValidationContext { roots, trust_domains, .. } = validation;
    let name = &validation.name;
    match (trust_domains, roots) {
        (Some(domains), _) => {
            let certificates = domains.iter().flat_map(|(_, roots)| &roots.facts).enumerate();
            all.extend(certificates.map(|(n, certificate)| (format!("{name}_{n}"), expiration(certificate))));
        }
        (None, Some(roots)) => all.extend(roots.facts.first().map(|first| (name.clone(), expiration(first)))),
        // What is not there does not expire.
        (None, None) => all.push((name.clone(), i64::MAX as u64)),
    }
    all
}

fn expiration(certificate: &Arc<Certificate>) -> u64 {
    let end = certificate.facts().not_after.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    end.unwrap_or_default().as_secs()
}

fn view(of: &Ingredients) -> ContextView {
    let own = of.certificates.iter().filter_map(|it| Some((it.origin.clone(), Arc::clone(it.chain.first()?))));
    let bundle = |origin: String, roots: &Roots| -> Vec<_> {
        roots.facts.iter().map(|certificate| (origin.clone(), Arc::clone(certificate))).collect()
    };
    let authorities = match of.validation.as_deref() {
        Some(ValidationContext { trust_domains: Some(domains), .. }) => {
            domains.iter().flat_map(|(name, roots)| bundle(format!("{name}: {}", roots.origin), roots)).collect()
        }
        Some(ValidationContext { roots: Some(roots), .. }) => bundle(roots.origin.clone(), roots),
        _ => Vec::new(),
    };
    ContextView { authorities, own: own.collect() }
}
