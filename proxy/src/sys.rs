//! The only module with `unsafe`: system calls std, tokio and socket2 do not offer. Each block carries its argument.
