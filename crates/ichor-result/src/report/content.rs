//! The content tree of a structured report (PS3.3 C.17.3): items, their relations, and what they become as elements.

use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::Uid;

use crate::codes::Code;
use crate::element::{Element, decimal_string, sequence, text, us};

/// How an item belongs to its parent (PS3.3 C.17.3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Contains,
    HasObservationContext,
    HasAcquisitionContext,
    HasConceptModifier,
    HasProperties,
}

impl Relation {
    const fn term(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::HasObservationContext => "HAS OBS CONTEXT",
            Self::HasAcquisitionContext => "HAS ACQ CONTEXT",
            Self::HasConceptModifier => "HAS CONCEPT MOD",
            Self::HasProperties => "HAS PROPERTIES",
        }
    }
}

/// An instance that is referred to.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstanceReference<'a> {
    pub(super) sop_class: &'a Uid,
    pub(super) sop_instance: &'a Uid,
    pub(super) frame: Option<u32>,
    pub(super) segment: Option<u16>,
}

/// The value of an item, by value type.
#[derive(Clone, Debug)]
enum Value<'a> {
    /// With the number of its template in PS3.16, if it is the start of one.
    Container(Option<&'static str>),
    Code(Code),
    Text(String),
    Number(f64, Code),
    Uid(&'a Uid),
    Image(InstanceReference<'a>),
}

/// A content item with everything below it.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    concept: Option<Code>,
    value: Value<'a>,
    children: Vec<(Relation, Item<'a>)>,
}

impl<'a> Item<'a> {
    fn new(concept: impl Into<Option<Code>>, value: Value<'a>) -> Self {
        Self { concept: concept.into(), value, children: Vec::new() }
    }

    pub(super) fn container(concept: Code, template: Option<&'static str>) -> Self {
        Self::new(concept, Value::Container(template))
    }

    pub(super) fn code(concept: Code, value: Code) -> Self {
        Self::new(concept, Value::Code(value))
    }

    pub(super) fn text(concept: Code, value: impl Into<String>) -> Self {
        Self::new(concept, Value::Text(value.into()))
    }

    pub(super) fn number(concept: Code, value: f64, unit: Code) -> Self {
        Self::new(concept, Value::Number(value, unit))
    }

    pub(super) fn uid(concept: Code, value: &'a Uid) -> Self {
        Self::new(concept, Value::Uid(value))
    }

    /// An image needs no concept where its place says what it is.
    pub(super) fn image(concept: impl Into<Option<Code>>, reference: InstanceReference<'a>) -> Self {
        Self::new(concept, Value::Image(reference))
    }

    pub(super) fn with(mut self, relation: Relation, child: Self) -> Self {
        self.children.push((relation, child));
        self
    }

    pub(super) fn containing(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children.into_iter().map(|child| (Relation::Contains, child)));
        self
    }

    /// The elements of the item; `relation` is absent for the root.
    pub(super) fn elements(self, relation: Option<Relation>) -> Vec<Element> {
        let mut elements: Vec<Element> = Vec::new();
        elements.extend(relation.map(|relation| text(tags::RELATIONSHIP_TYPE, VR::CS, relation.term())));
        elements.extend(self.concept.map(|concept| concept.sequence(tags::CONCEPT_NAME_CODE_SEQUENCE)));
        let value_type = match self.value {
            Value::Container(template) => {
                elements.push(text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE"));
                elements.extend(template.map(template_sequence));
                "CONTAINER"
            }
            Value::Code(code) => {
                elements.push(code.sequence(tags::CONCEPT_CODE_SEQUENCE));
                "CODE"
            }
            Value::Text(value) => {
                elements.push(text(tags::TEXT_VALUE, VR::UT, value));
                "TEXT"
            }
            Value::Number(value, unit) => {
                let measured = InMemDicomObject::from_element_iter([
                    unit.sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE),
                    text(tags::NUMERIC_VALUE, VR::DS, decimal_string(value)),
                ]);
                elements.push(sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured]));
                "NUM"
            }
            Value::Uid(uid) => {
                elements.push(text(tags::UID, VR::UI, uid.as_str()));
                "UIDREF"
            }
            Value::Image(reference) => {
                elements.push(sequence(tags::REFERENCED_SOP_SEQUENCE, vec![reference.item()]));
                "IMAGE"
            }
        };
        elements.push(text(tags::VALUE_TYPE, VR::CS, value_type));
        if !self.children.is_empty() {
            let item = |(relation, child): (Relation, Item<'_>)| {
                InMemDicomObject::from_element_iter(child.elements(Some(relation)))
            };
            elements.push(sequence(tags::CONTENT_SEQUENCE, self.children.into_iter().map(item).collect()));
        }
        elements
    }
}

impl InstanceReference<'_> {
    fn item(self) -> InMemDicomObject {
        let frame = self.frame.map(|frame| text(tags::REFERENCED_FRAME_NUMBER, VR::IS, frame.to_string()));
        let segment = self.segment.map(|segment| us(tags::REFERENCED_SEGMENT_NUMBER, segment));
        let instance = [
            text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, self.sop_class.as_str()),
            text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, self.sop_instance.as_str()),
        ];
        InMemDicomObject::from_element_iter(instance.into_iter().chain(frame).chain(segment))
    }
}

/// Content Template (PS3.3 C.18.8): the template of PS3.16 that the container follows.
fn template_sequence(number: &'static str) -> Element {
    let template = InMemDicomObject::from_element_iter([
        text(tags::MAPPING_RESOURCE, VR::CS, "DCMR"),
        text(tags::MAPPING_RESOURCE_UID, VR::UI, "1.2.840.10008.8.1.1"),
        text(tags::TEMPLATE_IDENTIFIER, VR::CS, number),
    ]);
    sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![template])
}
