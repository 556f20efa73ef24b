//! HTTP/1 codec: a typical ten-header exchange, decoded and encoded again as a proxy does it.

use std::hint::black_box;
use std::io::IoSlice;
use std::rc::Rc;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use legate::http::codec::h1::{
    Expected, HeaderFormat, RequestDecoder, RequestEncoder, RequestEvent, RequestOptions, ResponseDecoder,
    ResponseEncoder, ResponseEvent, ResponseOptions, WriteBuf, sanitize_request, sanitize_response,
};

const REQUEST: &[u8] = b"GET /api/v1/users/12345?fields=name,email HTTP/1.1\r\nHost: users.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json, text/plain, */*\r\n\
Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nX-Tenant-Id: 42\r\nX-Forwarded-For: 10.1.2.3\r\n\
X-Request-Id: 2f7d4d8e-5b0e-4f43-9a0e-7c1a0f1b2c3d\r\nConnection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 16\r\n\
Cache-Control: no-cache, no-store\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nETag: \"abcdef0123456789\"\r\n\
Vary: Accept-Encoding\r\nX-Frame-Options: DENY\r\nX-Content-Type-Options: nosniff\r\nServer: backend\r\n\
Set-Cookie: a=b; Path=/; HttpOnly\r\n\r\n0123456789abcdef";

/// What a socket write would do with the queue.
fn write(out: &mut WriteBuf) {
    let mut slices = [IoSlice::new(&[]); 4];
    let used = out.slices(&mut slices);
    black_box(&slices[..used]);
    out.advance(out.len());
}

fn request(c: &mut Criterion) {
    let mut decoder = RequestDecoder::new(Rc::default());
    let mut encoder = RequestEncoder::default();
    let (mut buf, mut out) = (BytesMut::new(), WriteBuf::new());
    let options = RequestOptions { end_stream: true, ..RequestOptions::default() };
    let mut group = c.benchmark_group("h1");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |b| {
        b.iter(|| {
            buf.reserve(4096);
            buf.extend_from_slice(REQUEST);
            let Ok(Some(RequestEvent::Head(mut request))) = decoder.decode(&mut buf) else { panic!("a head") };
            sanitize_request(&mut request.head.headers, false);
            assert!(encoder.encode_head(&request.head, &options, &mut out).is_ok());
            write(&mut out);
        });
    });
    group.finish();
}

fn response(c: &mut Criterion) {
    let mut decoder = ResponseDecoder::new(Rc::default());
    let mut encoder = ResponseEncoder::default();
    let (mut buf, mut out) = (BytesMut::new(), WriteBuf::new());
    let options = ResponseOptions { keep_alive: true, ..ResponseOptions::default() };
    let mut group = c.benchmark_group("h1");
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |b| {
        b.iter(|| {
            buf.reserve(4096);
            buf.extend_from_slice(RESPONSE);
            decoder.expect(Expected::Body);
            let Ok(Some(ResponseEvent::Head(mut response))) = decoder.decode(&mut buf) else { panic!("a head") };
            let Ok(Some(ResponseEvent::Data(data))) = decoder.decode(&mut buf) else { panic!("data") };
            assert!(matches!(decoder.decode(&mut buf), Ok(Some(ResponseEvent::End))));
            sanitize_response(&mut response.head.headers, false);
            assert!(encoder.encode_head(&response.head, &options, &mut out).is_ok());
            assert!(encoder.encode_data(data, &mut out).is_ok());
            assert!(encoder.finish(None, HeaderFormat::Lower, &mut out).is_ok());
            write(&mut out);
        });
    });
    group.finish();
}

criterion_group!(benches, request, response);
criterion_main!(benches);
