-- Tasks are listed by state, by list and by study, the newest first.
CREATE INDEX task_in_state ON task (status, id);
CREATE INDEX task_of_list ON task (list, id);
CREATE INDEX task_of_study ON task (study_instance, id);
