//! What a name was found by, and how far that is to be trusted.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    ListedPlaceZh,
    ListedOrganisationZh,
    ListedPersonZh,
    /// A family name and what goes with it.
    NameZh,
    /// The sounds of a foreign name beside a title or the like.
    ForeignZh,
    /// A foreign name with dots between its parts.
    DottedZh,
    PlaceByEndZh,
    OrganisationByEndZh,
    ListedPlace,
    ListedOrganisation,
    ListedPerson,
    /// After a title.
    Titled,
    /// A first name and more words with capitals.
    FullName,
    FirstName,
    PlaceByEnd,
    OrganisationByEnd,
    /// After in, at, from.
    PlaceByBefore,
    /// Before said, thinks.
    PersonByAfter,
}

impl Rule {
    /// Of a hundred names found so, about how many were a name of that type, perhaps with another first or last word.
    /// Counted in 2026 on the development parts of UNER Chinese-GSD and Weibo NER, of UNER English-EWT, and on WikiGold,
    /// part a of the Broad Twitter Corpus and WNUT 17.
    pub(super) fn score(self) -> u8 {
        match self {
            Self::ListedPlaceZh => 78,
            Self::ListedOrganisationZh => 60,
            Self::ListedPersonZh => 95,
            Self::NameZh => 75,
            Self::ForeignZh => 65,
            Self::DottedZh => 95,
            Self::PlaceByEndZh => 83,
            Self::OrganisationByEndZh => 51,
            Self::ListedPlace => 82,
            Self::ListedOrganisation => 71,
            Self::ListedPerson => 89,
            Self::Titled => 83,
            Self::FullName => 92,
            Self::FirstName => 66,
            Self::PlaceByEnd => 68,
            Self::OrganisationByEnd => 81,
            Self::PlaceByBefore => 65,
            Self::PersonByAfter => 71,
        }
    }
}
