//! The `legate` binary.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut path = None;
    let mut concurrency = 1;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-c" => path = args.next(),
            "--concurrency" => concurrency = args.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            "-l" => drop(args.next()),
            _ => {}
        }
    }
    let path = path.unwrap_or_default();
    let text = std::fs::read(&path).unwrap_or_default();
    let options = xds_client::proto::LoadOptions { source: &path, ..Default::default() };
    let loaded = xds_client::proto::load(
        &text,
        xds_client::proto::Format::Yaml,
        "envoy.config.bootstrap.v3.Bootstrap",
        &options,
    );
    let bootstrap = match loaded.and_then(|document| document.decode()) {
        Ok(bootstrap) => bootstrap,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    if let Err(error) = legate::server::run(&bootstrap, concurrency) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
