//! What holds for any field block: what an encoder writes passes, and what is refused the decoder behind refuses too.

use bytes::Bytes;
use edgeweir_host_framing::Malformed;
use edgeweir_host_framing::fuzzing::{START, play};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The most bytes of a head here.
const MOST: usize = 64 << 10;

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// A request: its fields, its body, and its trailers.
type Sent = (Vec<(String, Vec<u8>)>, Vec<u8>, Option<Vec<u8>>);

fn sent() -> impl Strategy<Value = Sent> {
    let name = prop_oneof!["[a-d]", "x-[a-z0-9]{1,30}", Just("cookie".to_owned())];
    let value = prop_oneof![
        prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..], 0..60),
        prop::collection::vec(0x21_u8..0x7f, 0..3_000),
    ];
    let fields = prop::collection::vec((name, value.clone()), 0..12);
    let body = prop::collection::vec(any::<u8>(), 0..300);
    (fields, body, prop::option::of(value))
}

fn fields(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().expect("a name");
        map.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    map
}

/// What h2 writes for these requests.
async fn written(requests: &[Sent]) -> Vec<u8> {
    let (ours, mut wire) = tokio::io::duplex(4 << 20);
    let (mut sender, connection) = h2::client::handshake(ours).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    for (list, body, trailers) in requests {
        let mut request = Request::post("http://example.org/a?b").body(()).unwrap();
        *request.headers_mut() = fields(list);
        sender = sender.ready().await.expect("ready");
        let (answer, mut stream) = sender.send_request(request, false).expect("a request");
        answers.push(answer);
        let end = trailers.is_none();
        stream
            .send_data(Bytes::from(body.clone()), end)
            .expect("a body");
        if let Some(value) = trailers {
            let list = fields(&[("x-sum".to_owned(), value.clone())]);
            stream.send_trailers(list).expect("trailers");
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    connection.abort();
    let _ = connection.await;
    drop(answers);
    drop(sender);
    let mut bytes = Vec::new();
    wire.read_to_end(&mut bytes)
        .await
        .expect("what was written");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_an_encoder_writes_passes(
        requests in prop::collection::vec(sent(), 1..12),
        piece in prop_oneof![1..64_usize, 64..20_000_usize],
    ) {
        let bytes = on_a_runtime(written(&requests));
        let heads = bytes.windows(9).filter(|it| it[3] == 1 && it[4] & 4 == 4).count();
        prop_assert!(heads >= requests.len());
        prop_assert_eq!(play(&bytes, MOST, piece), (bytes, None));
    }
}

/// A part of a field block. Integers have so many octets of nothing behind them.
#[derive(Clone, Debug)]
enum Part {
    Indexed(u32, usize),
    Literal(Kind, Name, Text),
    Size(u32, usize),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Kept,
    NotKept,
    Never,
}

#[derive(Clone, Debug)]
enum Name {
    Of(u32, usize),
    Literal(Text),
}

#[derive(Clone, Debug)]
enum Text {
    Plain(String),
    /// As it is, in Huffman's code.
    Coded(Vec<u8>),
}

fn index() -> impl Strategy<Value = u32> {
    // Without :status, whose values are numbers.
    prop_oneof![
        1 => Just(1),
        4 => 4..7_u32,
        12 => 15..62_u32,
        4 => 62..65_u32,
        1 => prop_oneof![4 => 65..70_u32, 1 => Just(0), 1 => 70..200_u32],
    ]
}

fn octets() -> impl Strategy<Value = usize> {
    prop_oneof![39 => Just(0), 1 => 1..5_usize]
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        20 => "[a-z]{1,40}".prop_map(Text::Plain),
        4 => "[a-z]{1000,2500}".prop_map(Text::Plain),
        1 => prop::collection::vec(prop_oneof![0x1f_u8..0x60, Just(0xff)], 1..6).prop_map(Text::Coded),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let kind = prop_oneof![3 => Just(Kind::Kept), 1 => Just(Kind::NotKept), 1 => Just(Kind::Never)];
    let name = prop_oneof![
        (index(), octets()).prop_map(|(index, octets)| Name::Of(index.max(1), octets)),
        text().prop_map(Name::Literal)
    ];
    let size = prop_oneof![Just(0), Just(4_096), 0..200_u32, 4_000..4_110_u32];
    prop_oneof![
        8 => (index(), octets()).prop_map(|(index, octets)| Part::Indexed(index, octets)),
        16 => (kind, name, text()).prop_map(|(kind, name, value)| Part::Literal(kind, name, value)),
        1 => (size, octets()).prop_map(|(size, octets)| Part::Size(size, octets)),
    ]
}

impl Part {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Indexed(index, octets) => integer(0x80, 7, *index, *octets, out),
            Self::Size(size, octets) => integer(0x20, 5, *size, *octets, out),
            Self::Literal(kind, name, value) => {
                let (first, bits) = match kind {
                    Kind::Kept => (0x40, 6),
                    Kind::NotKept => (0, 4),
                    Kind::Never => (0x10, 4),
                };
                match name {
                    Name::Of(index, octets) => integer(first, bits, *index, *octets, out),
                    Name::Literal(text) => {
                        out.push(first);
                        text.write(out);
                    }
                }
                value.write(out);
            }
        }
    }

    /// Whether it has text that may decode to anything.
    fn coded(&self) -> bool {
        match self {
            Self::Literal(_, name, value) => {
                matches!(value, Text::Coded(_)) || matches!(name, Name::Literal(Text::Coded(_)))
            }
            _ => false,
        }
    }
}

impl Text {
    fn write(&self, out: &mut Vec<u8>) {
        let (first, text) = match self {
            Self::Plain(text) => (0, text.as_bytes()),
            Self::Coded(text) => (0x80, &text[..]),
        };
        integer(first, 7, text.len() as u32, 0, out);
        out.extend_from_slice(text);
    }
}

/// RFC 7541 §5.1, with zeros at its end where it has octets behind its prefix.
fn integer(first: u8, bits: u32, value: u32, zeros: usize, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut left = value - most;
    while left >= 128 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    if zeros > 0 {
        out.push(left as u8 | 0x80);
        out.extend(vec![0x80; zeros - 1]);
        left = 0;
    }
    out.push(left as u8);
}

fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut frame = (block.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[1, 5]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(block);
    frame
}

/// Whether h2 ends the connection for what it reads.
async fn ends(bytes: &[u8]) -> bool {
    let (mut client, server) = tokio::io::duplex(4 << 20);
    client.write_all(bytes).await.expect("room");
    client.shutdown().await.expect("an end");
    let mut connection = h2::server::handshake(server).await.expect("a handshake");
    let mut open = Vec::new();
    while let Some(next) = connection.accept().await {
        match next {
            Ok(stream) => open.push(stream),
            Err(error) => return error.reason() == Some(h2::Reason::PROTOCOL_ERROR),
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_decoder_behind_agrees(
        blocks in prop::collection::vec(prop::collection::vec(part(), 0..8), 1..5),
        cut in prop_oneof![3 => Just(0_usize), 1 => 1..4_usize],
        piece in 1..200_usize,
    ) {
        let mut bytes = START.to_vec();
        for (at, parts) in blocks.iter().enumerate() {
            let mut block = Vec::new();
            parts.iter().for_each(|part| part.write(&mut block));
            if at + 1 == blocks.len() {
                block.truncate(block.len().saturating_sub(cut));
            }
            prop_assume!(block.len() <= 16_384);
            bytes.extend(headers(1 + 2 * at as u32, &block));
        }
        let (passed, why) = play(&bytes, MOST, piece);
        let refused = on_a_runtime(ends(&bytes));
        if let Some(why) = why {
            prop_assert_eq!(why, Malformed::FieldBlock);
            prop_assert!(refused, "refused, and could be decoded");
        } else {
            prop_assert_eq!(&passed, &bytes);
            let coded = blocks.iter().flatten().any(Part::coded);
            prop_assert!(coded || !refused, "passed, and cannot be decoded");
        }
    }
}
