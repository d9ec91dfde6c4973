//! From CT instances to Hounsfield volumes, model input, brain masks and millilitres.
