//! The webhook sender on real databases, with real receivers: every test runs on each of the databases.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod answers;
mod isolation;
mod leases;
mod orders;
mod outage;
mod receiver;
mod stage;
mod targets;

/// Each test once a server.
macro_rules! on_each_server {
    ($($group:ident :: $test:ident),* $(,)?) => {
        mod on_mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$group::$test(&super::stage::Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await).await })*
        }
        mod on_mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$group::$test(&super::stage::Stage::new("INSIGHTFORGE_TEST_MYSQL_URL").await).await })*
        }
    };
}

on_each_server! {
    answers::a_delivery_arrives_once_signed_and_is_recorded,
    answers::what_a_receiver_says_is_kept_of_operators_alone,
    answers::an_ended_task_is_announced_to_its_own_url_and_to_the_endpoint,
    answers::failures_are_retried_under_the_same_id_until_one_succeeds,
    answers::a_receiver_that_is_gone_or_fails_to_the_end_is_given_up,
    answers::a_receiver_that_asks_for_time_gets_it_and_its_other_deliveries_wait_unattempted,
    answers::what_cannot_be_sent_is_an_attempt_that_says_why,
    answers::an_answer_without_end_costs_nothing_and_counts_by_its_status,
    targets::a_redirect_is_not_followed,
    targets::a_forbidden_address_is_blocked_without_a_connection,
    targets::a_name_that_leads_to_a_forbidden_address_gets_no_connection_and_is_given_up_in_the_end,
    targets::a_name_that_leads_to_a_forbidden_address_for_a_while_costs_no_delivery,
    targets::an_opened_network_can_be_reached_and_the_connection_is_kept,
    targets::a_kept_connection_that_died_unnoticed_costs_no_attempt,
    isolation::a_hung_endpoint_costs_a_healthy_one_nothing,
    isolation::many_hung_hosts_leave_room_for_a_healthy_endpoint,
    isolation::a_receiver_that_is_down_is_left_alone_and_uses_up_no_attempts_of_what_waits,
    isolation::what_is_due_for_a_receiver_that_is_down_is_left_in_the_table_unread,
    isolation::what_has_waited_for_longer_than_the_schedule_is_given_up_while_its_receiver_is_down,
    isolation::what_was_ordered_again_has_its_time_anew_however_old_it_is,
    isolation::what_is_old_is_sent_all_the_same_once_there_is_somebody_to_send_it,
    leases::what_a_silent_sender_held_is_taken_although_more_is_due_than_one_claim_takes,
    leases::a_delivery_of_a_sender_that_died_is_sent_by_another_under_the_same_id,
    leases::a_sender_that_lost_its_lease_records_nothing,
    leases::what_was_sent_and_could_not_be_recorded_within_its_lease_is_not_sent_again,
    leases::senders_share_what_is_due_and_send_nothing_twice,
    leases::a_row_whose_task_is_locked_can_be_claimed,
    leases::a_stopping_sender_ends_what_is_in_flight_and_hands_back_the_rest,
    leases::a_stopping_sender_waits_for_a_hung_receiver_no_longer_than_the_drain,
    leases::what_was_handed_over_with_too_little_time_left_is_claimed_again,
    orders::deliveries_that_are_over_are_sent_again_under_the_same_id_and_others_are_left,
    orders::each_order_is_done_once_whoever_does_it,
    orders::a_test_message_is_signed_sent_once_and_told_of,
    outage::an_outage_of_the_database_is_waited_out_and_nothing_is_sent_twice,
}
