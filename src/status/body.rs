//! The body of a response: whole, in pages, or for as long as the reader listens.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::event_stream::EventStream;
use super::pages::{PageError, PagedBody};

pub(super) enum ResponseBody {
    Whole(Full<Bytes>),
    Paged(PagedBody),
    Events(EventStream),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = PageError;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PageError>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(task).map_err(|never| match never {}),
            Self::Paged(paged) => Pin::new(paged).poll_frame(task),
            Self::Events(events) => events.poll_next(task).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Paged(_) | Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Paged(_) | Self::Events(_) => SizeHint::default(),
        }
    }
}
