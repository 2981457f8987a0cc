//! Bridges, their addresses and their ports, over rtnetlink.
