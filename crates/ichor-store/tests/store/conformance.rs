//! What every backend must do. Another backend is one more `conformance!` line.

use crate::suite;
use crate::support::{Backend, SqliteFolder};

macro_rules! conformance {
    ($name:ident, $backend:ty) => {
        mod $name {
            use super::*;

            conformance! { @cases $backend:
                receive {
                    new_instance_is_there_when_answered,
                    duplicate_is_dropped_and_refreshes_nothing,
                    duplicates_at_once_are_stored_once,
                    header_is_not_content,
                    other_content_is_kept_apart,
                    own_result_is_kept_and_never_analysed,
                    own_result_does_not_open_its_study_again,
                    full_study_takes_no_more,
                    end_of_association_restarts_the_quiet_period,
                    association_ends_once,
                    attributes_fill_gaps_and_never_change,
                    many_associations_at_once,
                    lost_file_is_restored_by_a_duplicate,
                    refused_association_is_no_secret,
                }
                assemble {
                    study_closes_when_quiet,
                    study_closes_once_for_many_callers,
                    late_slices_open_one_new_version,
                    late_slice_before_the_claim_supersedes,
                    late_slice_during_the_analysis_keeps_the_outcome,
                    late_slice_during_a_failing_analysis,
                }
                triage {
                    slices_wait_in_the_order_of_arrival,
                    probabilities_stay_for_the_analysis,
                    frames_are_slices_of_their_own,
                    study_is_alerted_once,
                    alert_that_was_wrong_is_withdrawn,
                    alert_stands_if_nobody_looked_at_the_whole,
                }
                analyse {
                    claim_is_exclusive,
                    oldest_is_claimed_first,
                    outcome_is_recorded_whole,
                    not_analysed_is_a_result,
                    failed_attempt_waits_for_its_time,
                    failed_for_good_and_retried,
                    stale_claim_leaves_nothing,
                    retry_keeps_the_object_and_sends_it_once,
                    object_made_again_with_other_content_is_not_replaced,
                    study_of_two_thousand_slices,
                    positive_stands_until_there_is_another_result,
                    positive_stands_however_often_it_is_repeated,
                }
                maps {
                    maps_are_found_or_it_is_said_why_not,
                    maps_made_again_replace_those_of_before,
                    maps_go_with_the_results,
                    a_lost_file_of_maps_is_missed,
                }
                worklist {
                    workitem_is_created_once_and_changed_by_one,
                    workitems_come_in_their_order,
                    subscribers_hear_once_and_in_order,
                    analysis_leaves_one_workitem_a_version,
                    analysis_done_again_changes_what_nobody_has_begun,
                    name_that_is_taken_hides_no_workitem,
                }
                audit_feed {
                    repository_hears_in_order_what_happened,
                    small_steps_lead_to_the_same_place,
                    deliveries_and_deletions_are_heard_of,
                    forwarding_of_which_some_is_given_up_is_heard_of,
                }
                forward {
                    instances_of_closed_studies_are_queued_once,
                    decision_for_nobody_is_one,
                    sender_of_a_study_is_known_by_its_address,
                }
                held {
                    received_and_made_are_held_side_by_side,
                    studies_are_found_by_what_the_index_knows,
                }
                latency {
                    each_end_is_counted_once_and_outlives_the_process,
                    late_slices_and_wishes_begin_their_own_time,
                    messages_count_from_what_they_rest_on,
                    deliveries_count_the_first_time_they_arrive,
                    retention_takes_nothing,
                }
                lookup {
                    accession_number_is_kept_beside_the_received_one,
                    objects_speak_of_the_order_that_was_known_at_the_first_claim,
                    study_that_lacks_instances_waits_and_says_so,
                    study_that_has_its_instances_waits_no_longer,
                    complete_study_closes_early_and_a_growing_one_does_not,
                    open_association_keeps_a_complete_study_open,
                    peers_must_agree_before_a_study_closes_early,
                    failed_look_up_holds_nothing_up,
                    only_studies_of_its_sources_are_asked_about,
                    waits_are_short_after_a_clock_was_set_back,
                }
                figures {
                    an_empty_store_has_figures,
                    figures_tell_what_waits,
                }
                marks {
                    marks_come_and_go,
                    given_up_is_what_has_something_dead,
                    message_that_was_replaced_is_given_up_no_more,
                }
                messages {
                    a_new_channel_begins_with_now,
                    messages_know_the_version_that_they_belong_to,
                    each_subject_is_told_once,
                    urgent_first_and_one_of_a_study_at_a_time,
                    failed_message_waits_and_dies,
                    stale_message_claim_is_refused,
                    attempts_that_will_be_repeated_are_not_told,
                    dead_message_that_was_replaced_is_not_queued_again,
                    message_waits_for_the_number_of_its_order,
                    message_that_waits_goes_once_its_order_is_known,
                }
                deliver {
                    positives_first_then_the_oldest,
                    claim_is_exclusive,
                    dead_destination_delays_no_other,
                    failed_delivery_is_due_later,
                    dead_delivery_is_revived_by_retry,
                    stale_claim_is_told,
                }
                destination {
                    absence_is_told_once_and_costs_nothing,
                    held_ones_let_others_go_first,
                    refused_contexts_are_left_out_until_their_time,
                    urgent_ones_are_claimed_alone,
                    deliveries_are_listed_and_retried,
                }
                proof {
                    accepted_becomes_committed_and_visible,
                    what_is_not_committed_is_sent_again_and_then_dead,
                    late_report_is_taken_and_a_late_failure_is_not,
                    absent_peer_costs_no_attempt_and_one_event,
                    report_that_is_silent_about_an_instance_is_a_failure,
                    plan_that_changed_settles_what_is_due,
                    request_takes_what_was_asked_for_equally_often,
                }
                commitment {
                    what_is_there_is_committed_at_once,
                    each_failure_has_its_reason,
                    late_instances_are_waited_for,
                    same_request_is_answered_again_and_another_refused,
                    unanswered_reports_outlive_association_and_process,
                    a_thousand_instances,
                }
                models {
                    offers_are_what_the_last_start_found,
                    change_of_model_is_one_intent_and_has_a_history,
                    refused_model_leaves_the_active_one,
                    reanalysis_is_a_new_version_by_the_wanted_model,
                    late_slice_keeps_the_wanted_model,
                    failed_version_leaves_its_wish_to_the_next,
                }
                shadow {
                    committed_analyses_are_queued_once_and_nothing_follows,
                    full_queue_drops_its_oldest,
                    runs_outlive_the_process_and_attempts_are_counted,
                    real_work_is_seen,
                    agreement_is_reported_by_source,
                    scores_are_counted_by_the_hour,
                }
                query {
                    each_filter_filters,
                    pages_hold_every_study_once,
                    keys_find_studies,
                    timeline_tells_the_story_without_the_patient,
                    two_retries_at_once,
                    retry_answers_for_every_state,
                    changes_wake_pollers,
                }
                order {
                    urgent_and_alerted_first_then_the_oldest,
                    who_has_waited_long_is_overtaken_no_more,
                }
                tasks {
                    task_is_begun_once_and_outlives_the_process,
                    what_was_lost_may_be_claimed_again_after_a_while,
                    cancellation_is_asked_for_once_and_may_be_declined,
                    input_of_an_urgent_task_goes_first,
                    missing_instances_are_those_of_this_study,
                    what_has_come_since_is_counted_by_series,
                    lists_are_up_or_down_since_a_moment,
                    what_a_list_refuses_waits_for_people,
                }
                retention {
                    files_go_and_rows_stay,
                    what_is_no_longer_kept_is_neither_found_nor_analysed,
                    each_protection_protects,
                    what_comes_again_is_kept_again,
                    what_is_sent_again_is_young_again,
                    results_that_went_can_be_made_again,
                    what_is_no_longer_kept_is_not_committed,
                    candidates_come_in_pages_oldest_first,
                    old_events_of_no_study_go,
                }
                recovery {
                    interrupted_work_is_queued_again,
                    clock_that_was_set_back_holds_nothing_up,
                    files_without_rows_go,
                    rows_without_files_are_reported,
                    store_has_one_owner,
                    closed_store_says_so,
                    recovery_of_a_healthy_store_changes_nothing,
                }
            }
        }
    };
    (@cases $backend:ty: $($module:ident { $($case:ident),* $(,)? })*) => {
        $(mod $module {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                suite::$module::$case(<$backend>::new()).await;
            })*
        })*
    };
}

conformance!(sqlite, SqliteFolder);
