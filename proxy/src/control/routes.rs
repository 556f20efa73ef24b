//! Route manager: RDS subscriptions and publication.
