//! Texts as models see them: [`fold`] unites the scripts, [`script`] says which they are, [`units`] cuts them into words,
//! stretches of Chinese characters and signs.

pub mod fold;
pub mod script;
pub mod units;

pub use fold::{fold, is_han};
pub use script::{Script, language};
pub use units::{Kind, Unit, cut};
