"""Reads every element of every file with pydicom in its strictest mode, and prints what is wrong, a line each.

    read_strictly.py FILE...

pydicom's dictionary and value rules stand in for a validator of IODs here: pydicom's own (dicom-validator) reads the
modules from the standard's DocBook files, which it downloads when it is run, and tests need no network. Modules are
judged by dciodvfy. Ends with 77 where there is no pydicom.
"""

import sys

try:
    import pydicom
    from pydicom import config
    from pydicom.datadict import dictionary_description, dictionary_is_retired, dictionary_VM, dictionary_VR
    from pydicom.dataset import validate_file_meta
    from pydicom.valuerep import validate_value
except ImportError as error:
    print(error)
    sys.exit(77)

config.settings.reading_validation_mode = config.RAISE
config.settings.writing_validation_mode = config.RAISE
# Read as they are: what the standard forbids is not mended on the way.
config.convert_wrong_length_to_UN = False
config.replace_un_with_known_vr = False

# Value representations that are text by the standard's rules (PS3.5 6.2).
TEXT = "AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split()


def allows(rule: str, count: int) -> bool:
    """Whether a value multiplicity such as 1, 1-3, 2-2n or "1-n or 1" has room for so many values (PS3.5 6.4)."""
    for choice in rule.split(" or "):
        low, _, high = choice.partition("-")
        step = 1
        if high.endswith("n"):
            step, high = int(high[:-1] or 1), ""
        else:
            high = high or low
        low = int(low)
        if count >= low and (count - low) % step == 0 and (not high or count <= int(high)):
            return True
    return False


def judge(dataset: pydicom.Dataset, where: str, problems: list[str]) -> int:
    """Looks at every element of a data set and of the items in it; returns how many there are."""
    count = 0
    tags = list(dataset.keys())
    if tags != sorted(tags):
        problems.append(f"{where}: elements are not in the order of their tags")
    for tag in tags:
        count += 1
        name = f"{where}{tag}"
        try:
            element = dataset[tag]
            # A value is converted when it is asked for.
            value, multiplicity = element.value, element.VM
            # Conversion lets some values pass that their VR forbids.
            for one in value if multiplicity > 1 else [value]:
                if element.VR in TEXT and one is not None:
                    validate_value(element.VR, str(getattr(one, "original_string", one)), config.RAISE)
        except Exception as error:  # noqa: BLE001, whatever it is, the file is at fault
            problems.append(f"{name}: {error}")
            continue
        if tag.is_private:
            problems.append(f"{name}: private")
            continue
        try:
            vr, vm = dictionary_VR(tag), dictionary_VM(tag)
        except KeyError:
            problems.append(f"{name}: not in the dictionary")
            continue
        name += f" {dictionary_description(tag)}"
        if dictionary_is_retired(tag):
            problems.append(f"{name}: retired")
        if element.VR not in vr.split(" or "):
            problems.append(f"{name}: {element.VR} instead of {vr}")
        if element.VR == "SQ":
            for number, item in enumerate(value, 1):
                count += judge(item, f"{name}[{number}] ", problems)
        elif multiplicity and not allows(vm, multiplicity):
            problems.append(f"{name}: {multiplicity} values, {vm} allowed")
    return count


def main() -> None:
    elements = 0
    problems: list[str] = []
    for path in sys.argv[1:]:
        try:
            dataset = pydicom.dcmread(path)
            validate_file_meta(dataset.file_meta, enforce_standard=True)
        except Exception as error:  # noqa: BLE001
            problems.append(f"{path}: {error}")
            continue
        elements += judge(dataset.file_meta, "", problems) + judge(dataset, "", problems)
    print("\n".join(problems) if problems else f"{elements} elements")
    sys.exit(1 if problems or not elements else 0)


if __name__ == "__main__":
    main()
