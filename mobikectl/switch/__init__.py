"""Moving IKE_SAs: orders carried out, verified or undone, and recorded."""
