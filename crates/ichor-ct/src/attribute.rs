//! Reading single attributes, tolerant of what is absent and clear about what is wrong.

use dicom_core::Tag;
use dicom_object::DefaultDicomObject;
use ichor_core::Uid;

use crate::error::CtError;

/// Text without padding; `None` if absent, empty or unreadable.
pub(crate) fn text(object: &DefaultDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok().flatten()?.to_str().ok()?;
    let value = value.trim_matches(['\0', ' ']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// The values of a multi-valued text.
pub(crate) fn texts(object: &DefaultDicomObject, tag: Tag) -> Vec<String> {
    text(object, tag).map(|all| all.split('\\').map(|one| one.trim().to_owned()).collect()).unwrap_or_default()
}

/// All numbers of an attribute; `None` if absent or empty.
pub(crate) fn numbers(object: &DefaultDicomObject, tag: Tag, name: &'static str) -> Result<Option<Vec<f64>>, CtError> {
    let Some(element) = object.element_opt(tag).ok().flatten() else { return Ok(None) };
    if element.value().multiplicity() == 0 {
        return Ok(None);
    }
    let parsed = element.to_multi_float64();
    parsed.map(Some).map_err(|error| CtError::Attribute { name, problem: format!("is not a number: {error}") })
}

/// The first number of an attribute; `None` if absent, empty or no number.
pub(crate) fn number(object: &DefaultDicomObject, tag: Tag) -> Option<f64> {
    numbers(object, tag, "").ok().flatten()?.first().copied().filter(|value| value.is_finite())
}

/// Exactly `N` numbers.
pub(crate) fn exactly<const N: usize>(
    object: &DefaultDicomObject,
    tag: Tag,
    name: &'static str,
) -> Result<[f64; N], CtError> {
    let values = numbers(object, tag, name)?.ok_or(CtError::Missing(name))?;
    let found = values.len();
    values.try_into().map_err(|_| CtError::Attribute { name, problem: format!("has {found} values, {N} are needed") })
}

/// A whole number from 0 on.
pub(crate) fn count(object: &DefaultDicomObject, tag: Tag, name: &'static str) -> Result<u32, CtError> {
    let element = object.element_opt(tag).ok().flatten().ok_or(CtError::Missing(name))?;
    element.to_int().map_err(|error| CtError::Attribute { name, problem: error.to_string() })
}

/// A UID that must be there.
pub(crate) fn uid(object: &DefaultDicomObject, tag: Tag, name: &'static str) -> Result<Uid, CtError> {
    let value = text(object, tag).ok_or(CtError::Missing(name))?;
    Uid::parse(&value).map_err(|error| CtError::Attribute { name, problem: error.to_string() })
}
