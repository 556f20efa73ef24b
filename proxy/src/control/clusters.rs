//! Cluster manager: CDS, warming, host sets, publication.
