//! Parts of the body as scanners name them, in English, German, French, Spanish, Italian and Portuguese.
//!
//! Words of PS3.16 Annex L and their translations, upper case without accents, separated by blanks.

use crate::words::words;

/// The head, and what only it holds.
const HEAD: &str = "BRAIN CABECA CABEZA CAPUT CEREBRAL CEREBRO CEREBRUM CERVEAU CERVELLO CRANE CRANEO CRANIAL CRANIO \
    CRANIUM ENCEFALO ENCEPHALE GEHIRN HEAD HERSENEN HIRN HOOFD KOPF NEUROCRANIUM SCHADEL SCHAEDEL SCHEDEL SKULL TESTA \
    TETE";

/// Chest, abdomen, pelvis, spine and neck.
const TRUNK: &str = "ABDOME ABDOMEN ABDOMENPELVIS ABDOMINAL ADDOME BACIA BACINO BASSIN BAUCH BECKEN BRUSTKORB \
    BRUSTWIRBELSAEULE BRUSTWIRBELSAULE BWS CERVICAL CERVICALE CERVICALSPINE CHEST CHESTABDOMEN CHESTABDPELVIS COLLO \
    COLONNA COLONNE COLUMNA COLUNA COU CSPINE CUELLO HALS HALSWIRBELSAEULE HALSWIRBELSAULE HWS LENDENWIRBELSAEULE \
    LENDENWIRBELSAULE LOMBAIRE LOMBAR LOMBARE LSPINE LUMBAR LWS NECK NECKCHEST PECHO PEITO PELVE PELVI PELVIS PESCOCO \
    POITRINE RACHIDE RACHIS RAQUIS SPINAL SPINE SSPINE THORACIC THORACIQUE THORAX TLSPINE TORACE TORACICA TORAX TSPINE \
    VENTRE VIENTRE WHOLEBODY WIRBELSAEULE WIRBELSAULE";

/// Limbs.
const LIMBS: &str = "ANCA ANKLE ARM BEIN BRACCIO BRACO BRAS BRAZO CADERA CAVIGLIA CHEVILLE CODO COTOVELO COUDE CUISSE \
    ELBOW ELLBOGEN ELLENBOGEN EPAULE EXTREMITY FEMUR FINGER FOOT FUSS GAMBA GENOU GINOCCHIO GOMITO HANCHE HAND \
    HANDGELENK HIP HOMBRO HUEFTE HUFTE HUMERUS JAMBE JOELHO KNEE KNIE LEG MAIN MANO MAO MUNECA MUNHECA OBERARM \
    OBERSCHENKEL OMBRO PERNA PIE PIED PIEDE PIERNA POIGNET POLSO PUNHO QUADRIL RODILLA SCHULTER SHOULDER SPALLA \
    SPRUNGGELENK THIGH TOBILLO TORNOZELO UNTERARM UNTERSCHENKEL WRIST";

/// Organs of the trunk, and what of the face is imaged on its own.
const OTHERS: &str = "AORTA BREAST COEUR COLON CORACAO CORAZON CUORE HEART HERZ KIDNEY LEBER LIVER LUNG LUNGE NNH ORBIT \
    ORBITA ORBITAE ORBITAS ORBITE ORBITES ORBITS POLMONE POLMONI POUMON POUMONS PULMAO PULMON PULMONES SINUS SINUSES";

fn is_one_of(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == word)
}

/// Whether one of the words is of the trunk.
pub(crate) fn is_trunk(words: &[String]) -> bool {
    words.iter().any(|word| is_one_of(TRUNK, word))
}

/// Whether a text names the head.
pub(crate) fn is_head(text: &str) -> bool {
    let mut words = words(text);
    words.push(words.concat());
    words.iter().any(|word| is_one_of(HEAD, word))
}

/// Whether a Body Part Examined is none of the head without a doubt: it names another part, and not the head besides.
/// Anything else may be a head in another language.
pub(crate) fn is_other_body_part(part: &str) -> bool {
    let mut words = words(part);
    words.push(words.concat());
    let has = |list| words.iter().any(|word| is_one_of(list, word));
    !has(HEAD) && [TRUNK, LIMBS, OTHERS].into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_parts() {
        for other in [
            "CHEST",
            "c-spine",
            "C SPINE",
            "CSPINE",
            "Cervical spine",
            "NECK",
            "SINUS",
            "SINUSES",
            "ORBIT",
            "ORBITS",
            "CHESTABDPELVIS",
            "CHEST_ABDOMEN",
            "WHOLE BODY",
            "Brustkorb",
            "Bauch",
            "Becken",
            "Wirbelsäule",
            "WIRBELSAEULE",
            "HWS",
            "Hals",
            "Hüfte",
            "Fuß",
            "poitrine",
            "bassin",
            "rachis cervical",
            "cou",
            "épaule",
            "tórax",
            "columna",
            "cuello",
            "muñeca",
            "torace",
            "addome",
            "collo",
            "ginocchio",
            "abdome",
            "pescoço",
            "braço",
            "mão",
        ] {
            assert!(is_other_body_part(other), "{other}");
        }
        for head in [
            "HEAD",
            "BRAIN",
            "HEADNECK",
            "HEAD NECK",
            "Kopf/Hals",
            "SCHÄDEL",
            "SCHAEDEL",
            "Schädel",
            "tête",
            "TETE ET COU",
            "crâne",
            "CABEZA",
            "cráneo",
            "TESTA",
            "cranio",
            "cabeça",
            "cérebro",
            "encéfalo",
            "GEHIRN",
            "SKULL BASE ORBITS",
            "głowa",
            "ARMATURE",
            "",
        ] {
            assert!(!is_other_body_part(head), "{head}");
        }
    }

    #[test]
    fn no_list_says_a_word_twice() {
        let mut words: Vec<&str> =
            [HEAD, TRUNK, LIMBS, OTHERS].into_iter().flat_map(str::split_ascii_whitespace).collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
