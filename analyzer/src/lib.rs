//! Consumer groups that run models.

pub mod model;
