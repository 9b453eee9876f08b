"""EVA02-CLIP's vision transformers: the network in torch, its sizes in files, and the adapter."""
