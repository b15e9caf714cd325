"""The contenders: ours and its peers, one file each, behind one protocol."""
