//! RTDS: the layers of the runtime that a control plane fills.
//!
//! Each `rtds_layer` is one resource of one source. Its values replace the layer's as a whole; a removal empties it. A
//! response that is refused changes nothing. Start-up waits for the first answer to every layer, good or bad, or for the
//! end of its `initial_fetch_timeout`; that is after the clusters a control plane may be asked through and before all else.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use stats::Store;
use xds_client::{Client, Interest, Rejection, ResourceError, SourceConfig, Subscription, SubscriptionId};

use super::observer::SubscriptionScope;
use super::routes::Subscriber;
use crate::config::bootstrap::runtime::{LayerConfig, LayerSource};
use crate::config::config_source::ConfigSource;
use crate::runtime::Values;

/// The layers to discover.
#[derive(Default)]
pub(super) struct RtdsLayers {
    layers: Vec<Layer>,
    started: Cell<bool>,
}

struct Layer {
    /// The layer's own name.
    name: String,
    resource: String,
    source: ConfigSource,
    subscription: RefCell<Option<Subscription>>,
    /// It was answered, or there will be no answer for now.
    ready: Cell<bool>,
}

/// New values of one layer, by its name.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) layer: String,
    pub(super) values: Values,
}

impl RtdsLayers {
    pub(super) fn new(layers: &[LayerConfig]) -> Self {
        let layers = layers.iter().filter_map(|LayerConfig { name, source }| match source {
            LayerSource::Rtds { resource, source: Some(source) } => Some(Layer {
                name: name.clone(),
                resource: resource.clone(),
                source: source.clone(),
                subscription: RefCell::new(None),
                ready: Cell::new(false),
            }),
            _ => None,
        });
        Self { layers: layers.collect(), started: Cell::new(false) }
    }

    /// Whether no layer waits for its first answer.
    pub(super) fn is_ready(&self) -> bool {
        self.layers.iter().all(|layer| layer.ready.get())
    }

    /// Subscribes to every layer's resource; once.
    pub(super) fn start(&self, store: &Arc<Store>, subscriber: &dyn Subscriber) {
        if self.layers.is_empty() || self.started.replace(true) {
            return;
        }
        // One scope for all of them, as in Envoy.
        let scope = SubscriptionScope::new(store, "runtime.");
        for layer in &self.layers {
            let ConfigSource { source, initial_fetch_timeout } = &layer.source;
            let interest = Interest::name(xds_client::RUNTIME, &*layer.resource)
                .initial_fetch_timeout(*initial_fetch_timeout)
                .observed_by(Rc::clone(&scope) as _);
            match subscriber.subscribe(source, interest) {
                Ok(subscription) => *layer.subscription.borrow_mut() = Some(subscription),
                Err(error) => {
                    tracing::error!(target: "runtime", "layer {:?} cannot be subscribed to: {error}", layer.name);
                    layer.ready.set(true);
                }
            }
        }
    }

    /// What an update of this source changes, and what is wrong with it.
    pub(super) fn on_update(
        &self,
        client: &Client,
        resources: &[(String, Result<Values, String>)],
        removed: &[String],
    ) -> (Vec<Change>, Result<(), Rejection>) {
        let (mut changes, mut errors) = (Vec::new(), Vec::new());
        for layer in self.of_source(client) {
            match layer.on_update(resources, removed) {
                Ok(None) => continue,
                Ok(Some(values)) => changes.push(Change { layer: layer.name.clone(), values }),
                Err(error) => errors.push(error),
            }
            layer.ready.set(true);
        }
        (changes, if errors.is_empty() { Ok(()) } else { Err(Rejection { errors }) })
    }

    /// These resources ceased to be, without a response.
    pub(super) fn on_expired(&self, client: &Client, names: &[String]) -> Vec<Change> {
        self.on_update(client, &[], names).0
    }

    /// There will be no answer for now to any layer of this source, or to that of one subscription.
    pub(super) fn give_up_waiting(&self, client: &Client, subscription: Option<SubscriptionId>) {
        for layer in self.of_source(client) {
            let id = layer.subscription.borrow().as_ref().map(Subscription::id);
            if subscription.is_none() || subscription == id {
                layer.ready.set(true);
            }
        }
    }

    fn of_source(&self, client: &Client) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| {
            layer.subscription.borrow().as_ref().is_some_and(|subscription| subscription.client().same_source(client))
        })
    }
}

impl Layer {
    /// The values the update gives this layer; `None` if it is not about this layer.
    fn on_update(
        &self,
        resources: &[(String, Result<Values, String>)],
        removed: &[String],
    ) -> Result<Option<Values>, ResourceError> {
        // A stream is shared with other layers and tells only what was asked for. A document is for this layer alone.
        let is_document = matches!(self.source.source, SourceConfig::File(_) | SourceConfig::Rest(_));
        let concerns = |name: &String| is_document || *name == self.resource;
        let added: Vec<_> = resources.iter().filter(|(name, _)| concerns(name)).collect();
        let removed: Vec<_> = removed.iter().filter(|name| concerns(name)).collect();
        match (added.as_slice(), removed.as_slice()) {
            ([], []) if !is_document => Ok(None),
            ([(name, _)], []) if *name != self.resource => {
                Err(whole(format!("Unexpected RTDS runtime (expecting {}): {name}", self.resource)))
            }
            ([(name, values)], []) => match values {
                Ok(values) => Ok(Some(values.clone())),
                Err(message) => Err(ResourceError { name: name.clone(), message: message.clone() }),
            },
            ([], [_]) => Ok(Some(Values::new())),
            (added, removed) => Err(whole(format!(
                "Unexpected RTDS resource length, number of added resources {}, number of removed resources {}",
                added.len(),
                removed.len()
            ))),
        }
    }
}

const fn whole(message: String) -> ResourceError {
    ResourceError { name: String::new(), message }
}

#[cfg(test)]
mod tests {
    use xds_client::FileSource;

    use super::*;
    use crate::runtime::Value;

    fn layer(source: SourceConfig) -> Layer {
        Layer {
            name: "remote".to_owned(),
            resource: "mine".to_owned(),
            source: ConfigSource { source, initial_fetch_timeout: None },
            subscription: RefCell::new(None),
            ready: Cell::new(false),
        }
    }

    fn file() -> SourceConfig {
        SourceConfig::File(FileSource::new("/f"))
    }

    fn values(value: &str) -> Values {
        Values::from([("key".to_owned(), Value::parse(value.to_owned()))])
    }

    fn good(name: &str) -> (String, Result<Values, String>) {
        (name.to_owned(), Ok(values("1")))
    }

    #[test]
    fn a_layer_takes_what_is_its_own_and_judges_what_was_written_for_it() {
        let bad = || ("mine".to_owned(), Err("Invalid runtime entry value for k".to_owned()));
        let length = |added: usize, removed: usize| {
            format!(
                "Unexpected RTDS resource length, number of added resources {added}, number of removed resources {removed}"
            )
        };
        let wrong = "Unexpected RTDS runtime (expecting mine): other".to_owned();
        let invalid = || "mine: Invalid runtime entry value for k".to_owned();
        let mine = || Ok(Some(values("1")));
        for (added, removed, of_stream, of_document) in [
            (vec![good("mine")], vec![], mine(), mine()),
            (vec![good("other"), good("mine")], vec![], mine(), Err(length(2, 0))),
            (vec![good("other")], vec![], Ok(None), Err(wrong)),
            (vec![bad()], vec![], Err(invalid()), Err(invalid())),
            (vec![], vec!["mine"], Ok(Some(Values::new())), Ok(Some(Values::new()))),
            (vec![good("mine")], vec!["mine"], Err(length(1, 1)), Err(length(1, 1))),
            (vec![], vec![], Ok(None), Err(length(0, 0))),
        ] {
            let removed: Vec<String> = removed.into_iter().map(str::to_owned).collect();
            for (source, expected) in [(SourceConfig::Ads, of_stream), (file(), of_document)] {
                let got = layer(source).on_update(&added, &removed).map_err(|error| error.to_string());
                assert_eq!(got, expected, "{added:?} {removed:?}");
            }
        }
    }

    #[test]
    fn only_layers_with_a_source_are_waited_for() {
        let of = |name: &str, source: LayerSource| LayerConfig { name: name.to_owned(), source };
        let source = ConfigSource { source: SourceConfig::Ads, initial_fetch_timeout: None };
        let remote = LayerSource::Rtds { resource: "r".to_owned(), source: Some(source) };
        let others = [of("a", LayerSource::Admin), of("s", LayerSource::Static(Values::new()))];
        assert!(RtdsLayers::new(&others).is_ready());
        assert!(!RtdsLayers::new(&[of("r", remote)]).is_ready());
    }
}
