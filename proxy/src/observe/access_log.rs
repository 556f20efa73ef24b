//! Access logs: formatted on the worker, written by one writer per file.
