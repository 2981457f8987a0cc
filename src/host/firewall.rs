//! The project's nft table.
