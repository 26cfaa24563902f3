//! Announcements: what is owed to whom and how it went ([`deliveries`], [`endpoints`]), each attempt as it was sent and answered
//! ([`exchanges`]), and what people order of the sender ([`order`]): this process writes no table and sends nothing; the projector does both.

pub(crate) mod deliveries;
pub(crate) mod endpoints;
pub(crate) mod exchanges;
pub(crate) mod order;
