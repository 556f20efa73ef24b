//! What the process does on a signal: end at once, drain first, or open its log files again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Server, drain_strategy};
use crate::control::Control;
use crate::downstream::drain::DrainPlan;

impl Server<'_> {
    pub(super) fn spawn_signals(&self) -> Result<(), String> {
        let listen = |kind| signal(kind).map_err(|error| format!("signals cannot be handled: {error}"));
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let (mut hangup, mut user1) = (listen(SignalKind::hangup())?, listen(SignalKind::user_defined1())?);
        let control = Rc::clone(&self.control);
        let drain = Arc::clone(&self.shared.drain);
        let (patience, strategy) = (self.options.drain_on_sigterm, drain_strategy(self.options));
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {
                        tracing::warn!(target: "main", "caught SIGTERM");
                        match patience {
                            Some(patience) => {
                                let control = Rc::clone(&control);
                                let plan = DrainPlan { start: std::time::Instant::now(), time: patience, strategy };
                                if drain.begin(plan) {
                                    tokio::task::spawn_local(drain_and_quit(control, patience));
                                }
                            }
                            None => control.quit(),
                        }
                    }
                    _ = interrupt.recv() => {
                        tracing::warn!(target: "main", "caught SIGINT");
                        control.quit();
                    }
                    _ = hangup.recv() => tracing::warn!(target: "main", "caught and eating SIGHUP"),
                    _ = user1.recv() => {
                        tracing::info!(target: "main", "caught SIGUSR1, reopening access logs");
                        control.env.files.reopen();
                    }
                }
            }
        });
        Ok(())
    }
}

/// `--drain-on-sigterm`: connections leave as their requests end, for as long as the operator is patient.
async fn drain_and_quit(control: Rc<Control>, patience: Duration) {
    control.set_draining(true);
    let end = tokio::time::Instant::now() + patience;
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    while tokio::time::Instant::now() < end && control.open_connections() > 0 {
        poll.tick().await;
    }
    control.drain(crate::admin::backend::DrainRequest::default());
    control.quit();
}
