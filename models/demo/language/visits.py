"""What a dictated visit is made of: complaints with their assessments and plans, and vital signs."""

# ruff: noqa: E501 — rows of a table stay on one line
from __future__ import annotations

from dataclasses import dataclass

from models.demo.language.items import Language

# complaint pt; en; assessment pt; en; plan pt; en; examination pt; en
_TABLE = """
tosse e febre; cough and fever; pneumonia adquirida na comunidade; community-acquired pneumonia; amoxicilina 7 dias e radiografia de tórax; amoxicillin for 7 days and chest X-ray; estertores na base direita; crackles at the right base
dor de garganta; sore throat; faringoamigdalite viral; viral pharyngitis; paracetamol e hidratação; acetaminophen and fluids; orofaringe avermelhada; red oropharynx
dor lombar; low back pain; lombalgia mecânica; mechanical low back pain; ibuprofeno 5 dias e exercícios; ibuprofen for 5 days and exercises; dor à palpação lombar; lumbar tenderness
ardor ao urinar; burning urination; cistite não complicada; uncomplicated cystitis; nitrofurantoína 5 dias e urocultura; nitrofurantoin for 5 days and urine culture; abdome flácido; soft abdomen
cefaleia; headache; cefaleia tensional; tension-type headache; paracetamol e higiene do sono; acetaminophen and sleep hygiene; exame neurológico normal; normal neurological exam
dor no peito; chest pain; dor torácica a esclarecer; chest pain to be clarified; ECG e troponina agora; ECG and troponin now; ausculta cardíaca sem sopros; heart sounds without murmurs
falta de ar aos esforços; shortness of breath on exertion; insuficiência cardíaca; heart failure; furosemida e ecocardiograma; furosemide and echocardiogram; edema de membros inferiores; leg edema
chiado no peito; wheezing; exacerbação de asma; asthma exacerbation; salbutamol e prednisona 5 dias; albuterol and prednisone for 5 days; sibilos difusos; diffuse wheezes
diarreia e vômitos; diarrhea and vomiting; gastroenterite aguda; acute gastroenteritis; soro de reidratação oral; oral rehydration solution; mucosas secas; dry mucous membranes
azia; heartburn; doença do refluxo; reflux disease; omeprazol 4 semanas; omeprazole for 4 weeks; epigástrio levemente doloroso; mild epigastric tenderness
tontura; dizziness; vertigem posicional benigna; benign positional vertigo; manobra de Epley; Epley maneuver; nistagmo posicional; positional nystagmus
dor de ouvido; earache; otite média aguda; acute otitis media; amoxicilina 10 dias; amoxicillin for 10 days; membrana timpânica abaulada; bulging eardrum
dor no joelho; knee pain; osteoartrite de joelho; knee osteoarthritis; fisioterapia e paracetamol; physiotherapy and acetaminophen; crepitação no joelho; knee crepitus
palpitações; palpitations; palpitações a esclarecer; palpitations to be clarified; ECG e Holter; ECG and Holter; ritmo cardíaco regular; regular heart rhythm
cansaço; fatigue; anemia a investigar; anemia to be investigated; hemograma e ferritina; blood count and ferritin; mucosas descoradas; pale mucous membranes
coceira na pele; itchy skin; dermatite de contato; contact dermatitis; hidrocortisona creme 7 dias; hydrocortisone cream for 7 days; placas avermelhadas nos braços; red plaques on the arms
inchaço na perna; leg swelling; suspeita de trombose venosa profunda; suspected deep vein thrombosis; ultrassom Doppler hoje; Doppler ultrasound today; panturrilha endurecida; firm calf
dor abdominal; abdominal pain; suspeita de apendicite; suspected appendicitis; avaliação cirúrgica hoje; surgical review today; dor na fossa ilíaca direita; right lower quadrant tenderness
insônia; insomnia; insônia crônica; chronic insomnia; terapia cognitivo-comportamental; cognitive behavioral therapy; humor preservado; normal mood
coriza e espirros; runny nose and sneezing; rinite alérgica; allergic rhinitis; loratadina 10 dias; loratadine for 10 days; mucosa nasal pálida; pale nasal mucosa
"""


@dataclass(frozen=True)
class Complaint:
    """Why someone comes, with the assessment, plan and examination that go with it."""

    id: str
    says: dict[Language, str]
    assessment: dict[Language, str]
    plan: dict[Language, str]
    examination: dict[Language, str]


def _complaint(line: str) -> Complaint:
    parts = [part.strip() for part in line.split(";")]
    pairs: list[dict[Language, str]] = [
        {"pt": parts[at], "en": parts[at + 1]} for at in range(0, len(parts), 2)
    ]
    return Complaint(parts[1], *pairs)


COMPLAINTS = tuple(_complaint(line) for line in _TABLE.strip().splitlines())
VITALS = ("bp", "hr", "rr", "temp", "spo2")
