//! Digests of the bytes that an origin sent, which are none of the bytes that a client gets.

use edgeweir_filter::{Fields, ResponseHead, representation};

/// Those of stores and registries, which their clients check as they check those of the RFCs.
const OF_STORES: [&str; 7] = [
    "docker-content-digest",
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
    "x-goog-hash",
];

/// Makes a head true for content that was changed itself, not its coding alone.
pub(crate) fn transformed(head: &mut ResponseHead) {
    representation::transformed(head);
    drop_of_stores(&mut head.fields);
}

/// The same for a trailer section.
pub(crate) fn drop_all(trailers: &mut Fields) {
    representation::drop_digests(trailers);
    drop_of_stores(trailers);
}

pub(crate) fn drop_of_stores(fields: &mut Fields) {
    for digest in OF_STORES {
        fields.remove(digest);
    }
}
