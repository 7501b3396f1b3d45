//! Management: the typed calls, and the calls made of several.

mod array_client;
mod establish;
mod support;
