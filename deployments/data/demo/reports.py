"""What a report says, from the figures it stands on."""

from __future__ import annotations

from deployments.data.demo.codings import DEMO, LOINC, Resource, concept
from deployments.data.demo.courses import Visit
from deployments.data.demo.measures import MEASURES
from deployments.data.demo.people import Person

# Code system, code, name and the category of the report (HL7's v2-0074).
_EXAMS = {
    "ecg": (LOINC, "11524-6", "Eletrocardiograma", "EC"),
    "chest": (LOINC, "36643-5", "Radiografia de tórax, duas incidências", "RAD"),
    "ultrasound": (LOINC, "11525-3", "Ultrassonografia obstétrica", "OUS"),
    "spirometry": (f"{DEMO}:exam", "espirometria", "Espirometria", "PF"),
}


def comma(value: float, decimals: int) -> str:
    """A number as Brazil writes it."""
    return f"{value:.{decimals}f}".replace(".", ",")


def laboratory(values: dict[str, float]) -> str:
    """The conclusion of a laboratory report: what lies outside its reference, or that nothing does."""
    sentences = []
    for key, value in values.items():
        measure = MEASURES[key]
        low, high = measure.usual or (None, None)
        side = "abaixo" if low is not None and value < low else ""
        side = "acima" if high is not None and value > high else side
        if side:
            figure = f"{comma(value, measure.decimals)} {measure.unit}"
            sentences.append(f"{measure.display} {side} da referência: {figure}.")
    return " ".join(sentences) or "Resultados dentro dos valores de referência."


def exam_code(exam: str) -> tuple[Resource, str]:
    """Code of an examination, and the category of its report."""
    system, code, name, category = _EXAMS[exam]
    return concept(system, code, name), category


def examination(visit: Visit) -> str:
    """The conclusion of the visit's examination."""
    values = visit.values
    if visit.exam == "ecg":
        rate = values["heart_rate"]
        rhythm = "Taquicardia sinusal" if rate > 100 else "Ritmo sinusal"
        failing = any(i.disease.key == "heart_failure" for i in visit.illnesses)
        more = "Sobrecarga de ventrículo esquerdo." if failing else "Sem alterações isquêmicas."
        return f"{rhythm}, frequência de {comma(rate, 0)} bpm. {more}"
    if visit.exam == "spirometry" and "fev1_ratio" in values:
        ratio = values["fev1_ratio"]
        kind = "Distúrbio ventilatório obstrutivo" if ratio < 70 else "Espirometria sem obstrução"
        return f"{kind}: VEF1/CVF de {comma(ratio, 0)} %, VEF1 de {comma(values['fev1'], 2)} L."
    if visit.exam == "chest":
        return "Opacidade alveolar em base pulmonar direita, sem derrame pleural."
    if visit.exam == "ultrasound":
        weeks, beats = comma(values["gestation"], 0), comma(values["fetal_heart_rate"], 0)
        return f"Gestação única, tópica, de {weeks} semanas; batimentos fetais de {beats} bpm."
    return "Exame sem alterações."


def note(person: Person, visit: Visit) -> str:
    """A short progress note or discharge summary."""
    values = visit.values
    title = "SUMÁRIO DE ALTA" if visit.kind == "admission" else "EVOLUÇÃO CLÍNICA"
    sex = "feminino" if person.sex == "female" else "masculino"
    lines = [title, f"Data: {visit.on:%d/%m/%Y}"]
    lines.append(f"Paciente do sexo {sex}, {int(person.age(visit.on))} anos.")
    problems = "; ".join(illness.disease.display for illness in visit.illnesses)
    lines.append(f"Problemas: {problems or 'nenhum em acompanhamento'}.")
    if "systolic" in values:
        pressure = f"{comma(values['systolic'], 0)}/{comma(values['diastolic'], 0)} mmHg"
        lines.append(f"Ao exame: PA {pressure}, FC {comma(values['heart_rate'], 0)} bpm.")
    laboratory_values = {k: v for k, v in values.items() if MEASURES[k].category == "laboratory"}
    if laboratory_values:
        lines.append(f"Exames: {laboratory(laboratory_values)}")
    goals = " ".join(illness.disease.goal for illness in visit.illnesses)
    lines.append(f"Conduta: {goals or 'Manter acompanhamento anual.'}")
    return "\n".join(lines) + "\n"
